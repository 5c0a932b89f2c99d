"""REST, a file per noun; every route says who may call it and calls the same functions as the console."""
