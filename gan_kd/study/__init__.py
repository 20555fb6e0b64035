"""A study: a matrix of recipes x seeds, trained run by run and compared seed by seed."""
