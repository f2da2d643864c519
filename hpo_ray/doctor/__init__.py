"""The preflight of a cluster: what each node has (`facts`), how it is asked (`gather`), what that means (`judge`)."""
