from budgets import Budget, per_type

BUDGETS = {}
