"""What a run looks like: pictures of the robot (``video``), one HTML file that shows all (``report``)."""
