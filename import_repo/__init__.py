"""Read a repository that was not made by the template, and render a project next to it."""
