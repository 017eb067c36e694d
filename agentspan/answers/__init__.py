"""What findings say: blocks, and the functions that make them of a finding. Each surface renders blocks in its way."""
