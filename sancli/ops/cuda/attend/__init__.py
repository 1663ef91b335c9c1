"""The last convolution of the weights and what they weigh: out = aggregation(value, weight2 hidden + bias2)."""
