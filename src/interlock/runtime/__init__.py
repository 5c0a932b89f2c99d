"""What runs do and what starts them: workflows, triggers, schedules, control; how they last."""
