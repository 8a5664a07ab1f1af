"""inbound: an inbound mail processing pipeline."""
