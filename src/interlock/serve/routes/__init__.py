"""REST, a file per noun; every route says who may call it."""
