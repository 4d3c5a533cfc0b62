"""Converts RGB-D datasets, as they are downloaded, to the LMDBs that the networks train on."""
