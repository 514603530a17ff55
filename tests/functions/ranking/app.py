"""Ranks the nodes of a graph that came as an edge list; the graph of the last call is kept in memory."""

import networkx as nx

cache = {}


def graph_of(edges):
    key = tuple(map(tuple, edges))
    if key not in cache:
        cache.clear()
        graph = nx.Graph()
        graph.add_weighted_edges_from((a, b, w) for a, b, w in edges)
        cache[key] = graph
    return cache[key]


def handler(event, context):
    graph = nx.karate_club_graph() if event.get("graph") == "karate" else graph_of(event["edges"])
    score = nx.betweenness_centrality(graph, weight=None, normalized=True)
    top = sorted(score.items(), key=lambda item: (-item[1], str(item[0])))[: event.get("top", 3)]
    return {
        "nodes": graph.number_of_nodes(),
        "edges": graph.number_of_edges(),
        "components": nx.number_connected_components(graph),
        "top": [{"node": node, "score": round(value, 6)} for node, value in top],
    }
