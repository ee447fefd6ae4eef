"""What a run concludes: records, causes of failures, waivers, the verdict."""
