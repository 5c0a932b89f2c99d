"""What holds calls back: autonomy, budgets, breakers of servers that fail, kill switches."""
