"""Bytes: records, streams, videos, weights. Knows no network and no stage."""
