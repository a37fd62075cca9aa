//go:build !race

package vmatree

const raceEnabled = false
