package swarmtest

// DER returns the CA's certificate, for processes that are to trust it.
func (ca *CA) DER() []byte { return ca.cert.Raw }
