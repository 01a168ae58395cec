"""Features turn inputs into the rows that hidden weights multiply; readouts turn rows into predictions."""
