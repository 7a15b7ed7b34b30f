//! How the world reaches a node: gRPC for clients, HTTP for people and monitors.
