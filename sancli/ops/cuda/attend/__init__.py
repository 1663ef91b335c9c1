"""The last convolution of the weights, and what they weigh: aggregation(value, weight2 hidden + bias2)."""
