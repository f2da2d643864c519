"""A run handed to a cluster as a Ray job: what travels (`parcel`), what it does there (`request`), the job (`job`)."""
