package main

func goTest(*difference) string { return "" }
