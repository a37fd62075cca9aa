// Package vmatree is an ordered map from disjoint address ranges to values: a
// persistent B+tree whose readers take no lock.
package vmatree
