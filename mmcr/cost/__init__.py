"""What networks cost: multiply-accumulates, parameters, time; and budgets of it."""
