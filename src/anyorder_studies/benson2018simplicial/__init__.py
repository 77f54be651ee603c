"""Higher-order link prediction in timed sets: which open triangles close?"""
