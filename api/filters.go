package api

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/moby/moby/v2/errdefs"
)

// Bounds on a filters parameter: it comes from outside and each name or ID
// term is compiled as a regular expression.
const (
	maxFilterTerms = 256
	maxFilterTerm  = 1024 // bytes
)

// filters is the query parameter of that name: keys and the set of their
// terms. Within a key one term must match (for label: all), and all keys must.
type filters map[string][]string

// parseFilters reads {"key":{"term":true}} or, from old clients,
// {"key":["term"]}. The empty string is no filter. Keys not in known are an
// error.
func parseFilters(param string, known ...string) (filters, error) {
	if param == "" {
		return nil, nil
	}
	f := filters{}
	var sets map[string]map[string]bool
	if err := json.Unmarshal([]byte(param), &sets); err == nil {
		for key, set := range sets {
			for term := range set {
				f[key] = append(f[key], term)
			}
		}
	} else if err := json.Unmarshal([]byte(param), &f); err != nil {
		return nil, invalid("invalid filter: %q is neither a map of sets nor a map of lists of strings", param)
	}
	terms := 0
	for key, list := range f {
		if !slices.Contains(known, key) {
			return nil, invalid("invalid filter '%s'", key)
		}
		for _, term := range list {
			if len(term) > maxFilterTerm {
				return nil, invalid("invalid filter '%s': term of %d bytes, at most %d are taken", key, len(term), maxFilterTerm)
			}
		}
		if terms += len(list); terms > maxFilterTerms {
			return nil, invalid("invalid filter: more than %d terms", maxFilterTerms)
		}
	}
	return f, nil
}

// exact reports whether one term of key is s, or there is none.
func (f filters) exact(key, s string) bool {
	return len(f[key]) == 0 || slices.Contains(f[key], s)
}

// some reports whether match holds for one term of key, or there is none.
func (f filters) some(key string, match func(term string) bool) bool {
	return len(f[key]) == 0 || slices.ContainsFunc(f[key], match)
}

// matcher returns a match that reports whether one term of key is s or a
// regular expression that s matches anywhere, as Docker matches names and IDs,
// or there is no term. Terms that are no regular expression match as text only.
func (f filters) matcher(key string) (match func(s string) bool) {
	var exprs []*regexp.Regexp
	for _, term := range f[key] {
		if re, err := regexp.Compile(term); err == nil {
			exprs = append(exprs, re)
		}
	}
	return func(s string) bool {
		return f.exact(key, s) || slices.ContainsFunc(exprs, func(re *regexp.Regexp) bool { return re.MatchString(s) })
	}
}

// prefix reports whether s begins with one term of key, or there is none.
func (f filters) prefix(key, s string) bool {
	return len(f[key]) == 0 || slices.ContainsFunc(f[key], func(term string) bool {
		return strings.HasPrefix(s, term)
	})
}

// labels reports whether all terms of key, "name" or "name=value", are among
// labels, or there is none.
func (f filters) labels(key string, labels map[string]string) bool {
	return !slices.ContainsFunc(f[key], func(term string) bool {
		name, want, hasValue := strings.Cut(term, "=")
		value, ok := labels[name]
		return !ok || hasValue && value != want
	})
}

// one returns the only term of key; ok is false if there is none.
func (f filters) one(key string) (term string, ok bool, err error) {
	switch list := f[key]; len(list) {
	case 0:
		return "", false, nil
	case 1:
		return list[0], true, nil
	default:
		return "", false, invalid("invalid filter: '%s' cannot be specified more than once", key)
	}
}

// parseTime reads a moment as Docker's clients give it: a duration before now
// ("10m"), seconds since 1970 with an optional fraction, or RFC 3339 with or
// without zone and time of day. Without a zone it is the node's own.
func parseTime(s string, now time.Time) (time.Time, error) {
	if d, err := time.ParseDuration(s); err == nil && s != "0" {
		return now.Add(-d), nil
	}
	if sec, frac, _ := strings.Cut(s, "."); isDigits(sec) && (frac == "" || isDigits(frac)) {
		n, err := strconv.ParseInt(sec, 10, 64)
		if err != nil {
			return time.Time{}, fmt.Errorf("invalid time %q: %w", s, err)
		}
		nanos, _ := strconv.ParseInt((frac + "000000000")[:9], 10, 64) // nine digits: cannot fail
		return time.Unix(n, nanos), nil
	}
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05", "2006-01-02T15:04", "2006-01-02T15", "2006-01-02Z07:00", time.DateOnly} {
		if t, err := time.ParseInLocation(layout, s, now.Location()); err == nil {
			return t, nil
		}
	}
	return time.Time{}, fmt.Errorf("invalid time %q: want a duration like 10m, a Unix timestamp, or RFC 3339", s)
}

func isDigits(s string) bool {
	return s != "" && strings.Trim(s, "0123456789") == ""
}

// invalid is an error of class invalid argument, HTTP status 400.
func invalid(format string, args ...any) error {
	return errdefs.InvalidParameter(fmt.Errorf(format, args...))
}
