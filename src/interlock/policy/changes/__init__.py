"""What a change would do: to what seats may do at all, and to calls that were decided before."""
