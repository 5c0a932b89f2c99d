from __future__ import annotations

from dataclasses import replace

import pytest

from interlock.domain.errors import ManifestError
from interlock.domain.ids import ToolName
from interlock.domain.release import pin_of
from interlock.domain.tool import McpCall, SqlQuery
from interlock.manifest.load import load
from tests.manifest.sample import FILES, changed, problems

CREATE, FIND, SERVER = "tools/create.yaml", "tools/find.yaml", "servers/dev.yaml"


@pytest.mark.parametrize(
    ("path", "old", "new", "expected"),
    [
        (CREATE, "group: write", "group: read", "group `read` and effect class `read` go together"),
        (FIND, "class: read", "class: blind", "group `read` and effect class `read` go together"),
        (
            CREATE,
            "owner: it",
            "owner: ot",
            "there is no team `ot` (known are it, owners, security)",
        ),
        (
            CREATE,
            "  class: probed\n",
            "  class: probed\n  no_effect: [200]\n",
            "`effect.no_effect.0` should be a status from 300 to 599, or `error`, got `200`",
        ),
        (
            CREATE,
            "  class: probed\n",
            "  class: probed\n  no_effect: [error]\n",
            "an `http` tool answers with statuses, and knows no `error`",
        ),
        (CREATE, "labels: [pii]", "labels: [pi]", "there is no label `pi` (did you mean `pii`?)"),
        (CREATE, "system: desk", "system: disk", "there is no system `disk`"),
        (
            CREATE,
            "group: write\nrisk: 2",
            "group: destructive\nrisk: 1",
            "a destructive tool has at least risk 2",
        ),
        (
            CREATE,
            "risk: 2",
            "risk: 1\nirreversible: true",
            "an irreversible tool has at least risk 2",
        ),
        (
            CREATE,
            "risk: 2",
            "risk: 2\nirreversible: true\ncompensation: {tool: desk.issue.find@1, args: {ref: x}}",
            "an irreversible tool cannot have a compensation (drop one of the two)",
        ),
        (CREATE, "risk: 2", "risk: 2\negress: true", "a tool with `egress: true` has an external"),
        (CREATE, "class: probed", "class: keyed", "a `keyed` tool needs `key_ttl_s`"),
        (
            CREATE,
            "class: probed",
            "class: keyed\n  key_ttl_s: 60",
            "a `keyed` tool needs `key_header`",
        ),
        (CREATE, "class: probed", "class: conditional", "a `conditional` tool needs `guard`"),
        (
            CREATE,
            "class: probed",
            "class: conditional\n  guard: {kind: version, refused: [412]}",
            "a guard of kind `version` needs `version`",
        ),
        (
            CREATE,
            "class: probed",
            "class: conditional\n  guard: {kind: client_id, refused: [409], link: x}",
            "a guard of kind `client_id` takes no `link`",
        ),
        (CREATE, "find@1", "find@3", "there is no tool `desk.issue.find@3` (take 1)"),
        (CREATE, "issue.find@1", "issue.fnd@1", "there is no tool `desk.issue.fnd@1` (did you"),
        (CREATE, '{ref: "effect:id"}, found', '{rf: "effect:id"}, found', "has no argument `rf`"),
        (CREATE, '{ref: "effect:id"}, found', "{}, found", "needs the argument `ref`"),
        (CREATE, 'title: "in:/title"', 'title: "in:/titel"', "there is nothing at `in:/titel`"),
        (CREATE, 'ref: "effect:id"}\n', 'ref: "effect:it"}\n', "an effect has no `/it`"),
        (CREATE, 'ref: "effect:id"}\n', 'ref: "out:/id"}\n', "`out:` means nothing here"),
        (CREATE, 'id: "out:/id"', 'id: "out:/nr"', "there is nothing at `out:/nr`"),
        (CREATE, "path: /issues", "path: /issues/{id}", "`path_args` must name exactly what"),
        (
            CREATE,
            "additionalProperties: false\n    properties: {title",
            "properties: {title",
            "the object at `/` is open: add `additionalProperties: false`",
        ),
        (
            CREATE,
            "business_key",
            "policy_view: {hidden: [body]}\nbusiness_key",
            "there is no argument `body`",
        ),
        (
            CREATE,
            "business_key",
            'policy_view: {derived: {size: "bytes(/title)"}}\nbusiness_key',
            "`bytes(/title)` is no derived value",
        ),
        (CREATE, "server: desk-dev", "server: desk-prod", "there is no server `desk-prod`"),
        (CREATE, "  dev: {server", "  prod: {server", "the server `desk-dev` belongs to `dev`"),
        (CREATE, "/dev/bot", "/prod/bot", "`dev` cannot use the credentials of `prod`"),
        (
            CREATE,
            '"secret://desk/dev/bot"',
            "{triage: secret://desk/prod/bot}",
            "`dev` cannot use the credentials of `prod`",
        ),
        (
            CREATE,
            '"secret://desk/dev/bot"',
            "{triaje: secret://desk/dev/bot}",
            "there is no workflow `triaje`",
        ),
        (
            CREATE,
            ', credentials: "secret://desk/dev/bot"',
            "",
            "the server `desk-dev` wants credentials",
        ),
        (SERVER, "auth: bearer", "auth: none", "the server `desk-dev` takes no credentials"),
        (SERVER, "protocol: http", "protocol: python", "of protocol `python` takes no `url`"),
        (SERVER, "url: http://127.0.0.1:9000\n", "", "a server of protocol `http` needs `url`"),
        (SERVER, "9000", "9000/x?y=1", "is not an address without user, query and fragment"),
        (SERVER, "http://", "http://me:pw@", "is not an address without user, query and fragment"),
        (CREATE, "risk: 2", "risk: 2\npin: sha256:0", "the pin does not fit this content"),
    ],
)
def test_tool_that_contradicts_itself_is_refused(
    path: str, old: str, new: str, expected: str
) -> None:
    """Each rule of the registry is named by the problem that breaking it makes."""
    found = problems(changed(path, old, new))

    assert [problem for problem in found if expected in problem], found


LIBRARY = {
    "servers/library.yaml": """\
interlock: v1
kind: Server
name: library-dev
system: desk
environment: dev
protocol: mcp-stdio
argv: [library]
""",
    "tools/note.yaml": """\
interlock: v1
kind: Tool
name: desk.note.read
version: 1
owner: it
title: Read a note
description: Read a note.
system: desk
group: read
connector: mcp
upstream: {resource: "notes://{team}/{note}"}
contract:
  input:
    type: object
    additionalProperties: false
    properties: {team: {type: string}, note: {type: string}}
    required: [team, note]
  output: {type: object}
effect: {class: read}
source: {labels: [], trusted: true}
sink: {accepts: [], external: false}
environments: {dev: {server: library-dev}}
""",
}


def test_a_server_is_not_given_our_own_variables() -> None:
    """They may hold credentials, which are named by reference and not by variable."""
    text = LIBRARY["servers/library.yaml"] + "variables: [PATH, INTERLOCK_SECRET_DESK__DEV__BOT]\n"
    found = problems({**FILES, **LIBRARY, "servers/library.yaml": text})

    assert any("`INTERLOCK_SECRET_DESK__DEV__BOT` is for Interlock itself" in one for one in found)
    assert not any("`PATH`" in one for one in found)


def test_a_resource_is_a_tool_that_reads() -> None:
    """With an argument for each name in its URI."""
    tool = load({**FILES, **LIBRARY}).tools[ToolName("desk.note.read")]

    expected = McpCall(upstream="notes://{team}/{note}", kind="resource")
    assert expected == tool.request


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("group: read", "group: write", "a tool that is a resource reads"),
        ("upstream: {", "upstream: {key_argument: note, ", "a resource takes no key"),
        ("upstream: {", "upstream: {tool: note, ", "give one of `tool`, `resource` and `prompt`"),
        ("note: {type: string}", "note: {type: integer}", "the argument `note` of a resource is"),
        ("{team}/{note}", "{team}/{+note}", "is no URI with `{name}`"),
        ("{team}/{note}", "{team}/{page}", "there is no argument `page`"),
        ("{team}/{note}", "{team}", "the argument `note` is not in the URI"),
        ("[team, note]", "[team]", "there is no argument `note` (declare it in the contract, and"),
        (
            'resource: "notes://{team}/{note}"',
            "prompt: note, key_argument: note",
            "a prompt takes no key",
        ),
    ],
)
def test_a_resource_that_cannot_be_read_is_refused(old: str, new: str, expected: str) -> None:
    """What its URI wants and what its contract has are the same."""
    text = LIBRARY["tools/note.yaml"].replace(old, new, 1)
    found = problems({**FILES, **LIBRARY, "tools/note.yaml": text})

    assert any(expected in problem for problem in found), found


def test_undeclared_is_the_strictest() -> None:
    """Without source and sink a tool is untrusted and accepts nothing; without a class, blind."""
    files = changed("tools/create.yaml", "source: {labels: [pii], trusted: false}\n", "")
    files = {**files, "tools/create.yaml": files["tools/create.yaml"].replace("class: probed", "")}
    text = files["tools/create.yaml"].replace("sink: {accepts: [pii], external: false}\n", "")

    tool = next(
        tool
        for name, tool in load({**files, "tools/create.yaml": text}).tools.items()
        if name == "desk.issue.create"
    )

    assert ("blind", frozenset({"undeclared"}), False, frozenset()) == (
        tool.effect.effect_class.value,
        tool.source.labels,
        tool.source.is_trusted,
        tool.sink.accepts,
    )


def _deprecated(rest: str) -> dict[str, str]:
    declared = f"deprecated: {{since: 2026-11-01, reason: slow, {rest}}}\n"
    return {**FILES, FIND: FILES[FIND] + declared}


@pytest.mark.parametrize(
    ("rest", "expected"),
    [
        ("until: 2026-10-31", "`until` is before `since`"),
        ("replace_with: desk.issue.find@9", "there is no tool `desk.issue.find@9`"),
        ("replace_with: desk.issue.find@1", "`desk.issue.find@1` is deprecated too"),
        ("until: soon", "until"),
    ],
)
def test_deprecation_that_leads_nowhere_is_refused(rest: str, expected: str) -> None:
    """It names a version that stays, and days in their order."""
    assert any(expected in problem for problem in problems(_deprecated(rest)))


def test_deprecated_version_may_be_called_until_its_last_day() -> None:
    """Then an apply is refused, by the line of the file; a look and another day are not."""
    files = _deprecated("until: 2026-11-30")

    load(files)
    load(files, today="2026-11-30")
    with pytest.raises(ManifestError) as refused:
        load(files, today="2026-12-01")

    [problem] = refused.value.problems
    assert problem.path == "tools/find.yaml"
    assert "it is live in dev after its last day, and called by `triage`" in str(problem)
    assert "release another version there, or move `until`" in str(problem)


def test_deprecating_changes_no_pin() -> None:
    """The content of a published version stays; that it is to be replaced is news about it."""
    before, after = load(FILES), load(_deprecated("until: 2026-11-30"))

    pins = [pin_of(side.tools[ToolName("desk.issue.find")]) for side in (before, after)]

    assert pins[0] == pins[1]
    load(_deprecated("until: 2026-11-30"), previous=replace(before, number=1))


CODE_SERVER = """\
interlock: v1
kind: Server
name: code-dev
system: desk
environment: dev
protocol: python-sandbox
source: functions/text
"""
CODE_TOOL = """\
interlock: v1
kind: Tool
name: desk.name.make
version: 1
owner: it
title: Make a name
description: Make a name of a title.
system: desk
group: read
connector: python
function: names.slug
contract: {input: {type: object}, output: {type: string}}
effect: {class: read}
environments: {dev: {server: code-dev}}
"""
CODE = {
    "servers/code.yaml": CODE_SERVER,
    "tools/code.yaml": CODE_TOOL,
    "functions/text/names.py": "def slug(): ...",
    "functions/text/deep/er.py": "",
    "functions/textual/other.py": "",
}


def test_untrusted_code_is_part_of_the_release() -> None:
    """The files of the folder that the server names, by their path below it, and no others."""
    release = load({**FILES, **CODE})

    expected = {"names.py": "def slug(): ...", "deep/er.py": ""}
    assert expected == release.servers["code-dev"].code
    assert {} == release.servers["desk-dev"].code


@pytest.mark.parametrize(
    ("path", "old", "new", "expected"),
    [
        ("servers/code.yaml", "source: functions/text", "", "needs `source`"),
        ("servers/code.yaml", "-sandbox", "", "of protocol `python` takes no `source`"),
        (
            "servers/code.yaml",
            "functions/text",
            "functions/none",
            "there are no `.py` files in `functions/none` (put the code there)",
        ),
        ("servers/code.yaml", "functions/text", "functions/../tools", "source"),
        ("tools/code.yaml", "names.slug", "nomes.slug", "has no function `nomes.slug`"),
        ("tools/code.yaml", "names.slug", "slug", "write it as MODULE.FUNCTION"),
    ],
)
def test_untrusted_code_that_is_not_there_is_refused(
    path: str, old: str, new: str, expected: str
) -> None:
    """A server without code, code without a server that runs it, a function of no module."""
    found = problems({**FILES, **CODE, path: CODE[path].replace(old, new)})

    assert any(expected in problem for problem in found), found


@pytest.mark.parametrize("path", ["json.py", "json/deep.py"])
def test_untrusted_code_cannot_stand_in_for_python_itself(path: str) -> None:
    """Its module would be the one of Python inside, which is loaded already."""
    (found,) = problems({**FILES, **CODE, f"functions/text/{path}": ""})

    assert f"`{path}` has the name of the module `json` of Python itself" in found


SQL_SERVER = """\
interlock: v1
kind: Server
name: base-dev
system: desk
environment: dev
protocol: postgres
url: postgres://127.0.0.1:5432/desk
auth: basic
"""
SQL_TOOL = """\
interlock: v1
kind: Tool
name: desk.issue.count
version: 1
owner: it
title: Count issues
description: Count issues of a person.
system: desk
group: read
connector: sql
query:
  statement: SELECT count(*) AS n FROM issue WHERE who = %(who)s
  parameters: {who: "in:/who"}
contract:
  input: {type: object, additionalProperties: false, properties: {who: {type: string}}}
  output: {type: object}
effect: {class: read}
environments: {dev: {server: base-dev, credentials: "secret://desk/dev/reader"}}
"""
SQL = {"servers/base.yaml": SQL_SERVER, "tools/count.yaml": SQL_TOOL}


def test_a_statement_is_a_tool() -> None:
    """With its text as it stands in the file."""
    tool = load({**FILES, **SQL}).tools[ToolName("desk.issue.count")]

    assert isinstance(tool.request, SqlQuery)
    assert tool.request.statement.endswith("WHERE who = %(who)s")
    assert {"who": "in:/who"} == tool.request.parameters


@pytest.mark.parametrize(
    ("path", "old", "new", "expected"),
    [
        ("tools/count.yaml", "SELECT count", "DELETE count", "begins with SELECT, WITH, VALUES"),
        ("tools/count.yaml", "%(who)s", "%(whom)s", "does not say what `%(whom)s` is"),
        ("tools/count.yaml", '"in:/who"', '"in:/whom"', "there is nothing at `in:/whom`"),
        ("tools/count.yaml", '"in:/who"', '"out:/who"', "`out:` means nothing here"),
        (
            "tools/count.yaml",
            "group: read",
            "group: write",
            "a tool that is a statement reads (say `group: read`",
        ),
        ("tools/count.yaml", "connector: sql", "connector: http", "with `connector: http` has"),
        ("servers/base.yaml", "auth: basic", "auth: bearer", "say `auth: basic`"),
        ("servers/base.yaml", "/desk\n", "\n", "write it as postgres://HOST:PORT/DATABASE"),
        ("servers/base.yaml", "postgres://", "https://", "write it as postgres://HOST:PORT"),
        ("servers/base.yaml", "//127", "//me:pw@127", "write it as postgres://HOST:PORT"),
        ("servers/base.yaml", "protocol: postgres", "protocol: http", "is not an address"),
    ],
)
def test_a_statement_that_could_not_be_sent_is_refused(
    path: str, old: str, new: str, expected: str
) -> None:
    """Or that would write, or whose database is named in another way."""
    assert old in SQL[path]
    found = problems({**FILES, **SQL, path: SQL[path].replace(old, new)})

    assert any(expected in problem for problem in found), found


PROGRAM = """\
interlock: v1
kind: Server
name: library-prod
system: desk
environment: prod
protocol: mcp-stdio
argv: [library]
"""
PROGRAM_PIN = f"program_pin: sha256:{'0' * 64}\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (PROGRAM, "a program that is started in `prod` is pinned (write the digest that"),
        (PROGRAM + "program_pin: abc\n", "`program_pin` should match"),
        (
            PROGRAM.replace("mcp-stdio\nargv: [library]", "python") + PROGRAM_PIN,
            "a server of protocol `python` takes no `program_pin`",
        ),
    ],
)
def test_a_program_beyond_dev_is_pinned(text: str, expected: str) -> None:
    """What is started there is what was reviewed, or nothing."""
    found = problems({**FILES, "servers/library.yaml": text})

    assert any(expected in problem for problem in found), found


def test_a_pinned_program_is_accepted() -> None:
    """In `dev` it may do without."""
    dev = PROGRAM.replace("prod", "dev")
    servers = {"servers/library.yaml": PROGRAM + PROGRAM_PIN, "servers/library_dev.yaml": dev}

    found = load({**FILES, **servers}).servers

    pins = [found[name].program_pin for name in ("library-prod", "library-dev")]
    assert [PROGRAM_PIN.split(": ")[1].strip(), None] == pins
