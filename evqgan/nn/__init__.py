"""Neural layers that several packages share, and frozen networks. They know nothing of configs."""
