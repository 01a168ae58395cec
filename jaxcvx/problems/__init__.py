"""Problems: data, targets, loss and regularisation as frozen pytrees."""
