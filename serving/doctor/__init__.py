"""`latentclr doctor`: looks at this machine, a repository and a server, and says what is wrong with them."""
