"""What a payload means: span types, whether a payload conforms to one, and the line that sums it up."""
