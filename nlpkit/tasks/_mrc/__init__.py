"""What the tasks of reading comprehension share; no task itself."""
