"""Networks: MLP, convolutional networks, backbones to transfer from, and their weights."""
