"""Worlds written as a page of YAML: a robot, fixtures, objects, cameras; predicates follow from what there is."""
