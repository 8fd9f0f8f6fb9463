"""The real engine on modelled storages and networks, in virtual time: what would happen if."""
