"""What a request costs here, beside plain nginx doing the same work in the same run."""
