// Package words has some words.
package words

import "strings"

// All returns the words.
func All() []string {
	return strings.Fields("gather check ask install complete")
}
