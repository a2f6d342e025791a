"""Routes, one module per resource. A view reads the request, makes one call and returns the response."""
