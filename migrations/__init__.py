"""The history of the database schema. It is a package so that an installed Stillpoint brings its migrations with it."""
