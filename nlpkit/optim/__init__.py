"""What an optimiser step is made of: parameter groups, a schedule, an average of the weights."""
