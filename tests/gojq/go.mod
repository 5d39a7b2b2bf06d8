module octocache.invalid/gojq

go 1.26.7

require github.com/cli/go-gh/v2 v2.17.0

require (
	github.com/itchyny/gojq v0.12.19 // indirect
	github.com/itchyny/timefmt-go v0.1.8 // indirect
)
