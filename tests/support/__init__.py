"""What the fixtures hand to tests: restic as an object, S3 buckets, the servers of this machine."""
