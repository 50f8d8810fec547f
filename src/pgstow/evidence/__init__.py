"""Evidence: controls judged by facts, and bundles of them that can be checked elsewhere with a public key alone."""
