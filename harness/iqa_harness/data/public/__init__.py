"""Public data sets and a user's own label files: layouts, splits, what is wrong with them."""
