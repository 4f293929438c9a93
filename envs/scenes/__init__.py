"""Worlds written as a page of YAML: a robot, fixtures, objects and cameras; predicates follow from their kinds."""
