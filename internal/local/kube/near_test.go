package kube

import (
	"slices"
	"testing"
)

func TestNear(t *testing.T) {
	pods := []string{"cart-0", "cart-1", "shop-7d4b9c5f-2xk8p", "shop-7d4b9c5f-9zz2q", "shop-admin-66f-abcde", "web-1"}
	for _, c := range []struct {
		name string
		want []string
	}{
		{"shop", []string{"shop-7d4b9c5f-2xk8p", "shop-7d4b9c5f-9zz2q", "shop-admin-66f-abcde"}},
		{"shop-7d4b9c5f", []string{"shop-7d4b9c5f-2xk8p", "shop-7d4b9c5f-9zz2q"}},
		{"shop-7d4b9c5f-old42", []string{"shop-7d4b9c5f-2xk8p", "shop-7d4b9c5f-9zz2q"}},
		{"shop-6666666-abcde", []string{"shop-7d4b9c5f-2xk8p", "shop-7d4b9c5f-9zz2q", "shop-admin-66f-abcde"}},
		{"wbe-1", []string{"web-1"}},
		{"web1", []string{"web-1"}},
		{"cart-3", []string{"cart-0", "cart-1"}},
		{"cart-11", []string{"cart-1", "cart-0"}},
		{"mysql", nil},
		{"", nil},
	} {
		if got := near(c.name, pods); !slices.Equal(got, c.want) {
			t.Errorf("near(%q) = %q, want %q", c.name, got, c.want)
		}
	}
}

func TestDistance(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want int
	}{{"", "", 0}, {"a", "", 1}, {"", "abc", 3}, {"web", "web", 0}, {"web", "wbe", 1}, {"web", "wab", 1}, {"kitten", "sitting", 3}, {"ca", "abc", 3}} {
		if got := distance(c.a, c.b); got != c.want {
			t.Errorf("distance(%q, %q) = %d, want %d", c.a, c.b, got, c.want)
		}
		if got, back := distance(c.a, c.b), distance(c.b, c.a); got != back {
			t.Errorf("distance(%q, %q) = %d, and %d the other way", c.a, c.b, got, back)
		}
	}
}
