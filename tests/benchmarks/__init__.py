"""The cost of a request, compared with plain nginx that does the same work in the same run."""
