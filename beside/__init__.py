"""Beside a repository that was not made by the template: a project, and a proposal of where the old code belongs in it."""
