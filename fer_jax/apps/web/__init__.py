"""The web page and its API: pictures come in over HTTP, faces go out as JSON."""
