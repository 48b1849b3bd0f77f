import numpy as np

from lib.codecs.multicut import cost, multicut, objective


def test_a_chain_of_two_people():
    edges = [[0, 1], [1, 2], [2, 3]]
    labels = multicut(cost([0.9, 0.8, 0.9, 0.7]), edges, cost([0.9, 0.1, 0.8]))
    assert labels.tolist() == [0, 0, 1, 1]
    np.testing.assert_allclose(
        objective(cost([0.9, 0.8, 0.9, 0.7]), edges, cost([0.9, 0.1, 0.8]), labels),
        cost([0.9, 0.8, 0.9, 0.7, 0.9, 0.8]).sum(),
    )
