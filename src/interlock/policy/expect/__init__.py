"""What is expected of policies, as data: single calls, and statements about all calls."""
