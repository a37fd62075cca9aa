// Package count counts letters.
package count

import "strings"

// Vowels returns how many letters of s are vowels.
func Vowels(s string) (n int) {
	for _, r := range s {
		if strings.ContainsRune("aeiou", r) {
			n++
		}
	}
	return n
}
